"""The cards of the embedded models: weights exported to data/models/, with measured figures."""
