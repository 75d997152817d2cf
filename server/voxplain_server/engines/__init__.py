"""What answers: engines score perturbed cases, or differentiate the twin."""
