"""A linear probe of the residual stream: closed-form discriminant analysis over a run's text."""
