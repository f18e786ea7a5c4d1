"""What is served, held against what was learned: drift, calibration, arms, coverage, the under-served."""
