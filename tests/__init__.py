"""All tests: unit, contract, integration, e2e, gpu."""
