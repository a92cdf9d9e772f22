"""What a promise of speed or memory rests on: measured beside other engines and a floor, in one run."""
