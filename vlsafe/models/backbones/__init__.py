"""VLLMs under one small base class."""
