"""The simulator: the same decision code in virtual time. Not built yet; the decision code it will run is scheduler.decide."""
