"""The leaderboard: records of runs, and the tables, figures and pages rendered from them."""
