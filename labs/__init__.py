"""What a lab is: catalogue, hardware facts, formulas and records. Standard library only."""
