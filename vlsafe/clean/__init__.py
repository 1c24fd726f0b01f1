"""Harmful samples in an instruction set: found by any judge of the evaluation, told, and taken out."""
