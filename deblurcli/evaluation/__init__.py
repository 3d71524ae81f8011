"""Measuring how good a method is: the pictures and the order (`measuring`), Köhler's benchmark
(`koehler`), the results and their means (`scores`), memory (`peak_memory`), tables (`tables`)."""
