"""Measuring a model: its gap, its judge on known pairs and quizzes, what of it a run keeps."""
