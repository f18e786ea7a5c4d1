"""May a challenger become the champion? The gate, its checks, fairness, leaks, and the model card."""
