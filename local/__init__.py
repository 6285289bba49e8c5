"""The whole product on one machine: simulated Azure, a small Functions host, scenarios. For trying and testing only."""
