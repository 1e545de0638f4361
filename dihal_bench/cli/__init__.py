"""The verbs of the command line, one module each: ``add`` declares it, heavy imports come later."""
