"""Measuring a model: its generation-understanding gap, and its judge on probe sets and quizzes."""
