"""nashc: deploys multiplication-reduced hybrid CNNs on FPGAs."""
