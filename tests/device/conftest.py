"""Puts this folder on the path: the tests of every device share linear_programs.py."""
