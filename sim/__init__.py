"""The simulator: the same decision code in virtual time. Not built yet; it will run `scheduler.decide`."""
