"""Benchmark stage: any Classifier over the same gold queries, and the report."""
