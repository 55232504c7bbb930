"""What a run will take, in time and money, before it runs: counted work over measured or derived rates."""
