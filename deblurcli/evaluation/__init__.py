"""Measuring how good a method is: the pictures and the order (`evaluate`), Köhler's benchmark
(`koehler`), figures (`metrics`), the results and their means (`scores`), memory (`peak_memory`),
tables (`tables`), and pages to look at: what they say (`report`), how they are built (`html`)."""
