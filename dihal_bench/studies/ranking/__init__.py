"""Does a predictor rank candidates as their measured losses do?"""
