"""What the doctor looks at: each file asks one part of the machine, reads the answer, and judges it."""
