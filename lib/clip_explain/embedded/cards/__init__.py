"""The cards of the embedded models: weights exported to data/models/, and what they were measured to do."""
