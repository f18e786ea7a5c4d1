"""What is learned from a customer: spines, labels, models, evaluation, MLflow runs, the command line."""
