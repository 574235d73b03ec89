"""What the daemon keeps in its state directory: ledger, checkpoints, locks.

schema        the ledger's file, with all its tables
reader        what is asked of the ledger
ledger        what changes it
retention     what it forgets in the course of time
retries       whether, and when, a job that failed is tried again
wording       how states and reasons are told to people
presence      whether a remembered photo is still where it was
checkpoints   unfinished paintings
marks         which photo is being looked at, for when that ends the process
locks         one daemon for each state directory and each folder
"""
