"""Carrying out a claim: theorems, runs and the check from plan to verdict."""
