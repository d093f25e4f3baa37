"""The words between front, keeper and workers: jobs, questions and answers.  No private key."""
