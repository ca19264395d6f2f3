"""The functions of normbench for Python, which its commands use too."""
