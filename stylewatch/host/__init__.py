"""The daemon: from a watched folder to a published result, by way of the ledger.

daemon        its thread, which does all that follows, one tick after the other
mailbox       commands come in from other threads
intake        photos that are complete become jobs in the ledger
recognition   which folder lies at a watched place: the same as before, a moved or another one
dispatch      jobs are started and collected, each by way of an executor
fairness      from which folder the next job is taken
flight        a job that runs, and how it ended
delivery      results get their names, photos are kept, moved or deleted; later, if not now
publication   how that is done, step by step, so that a crash does no harm
disks         nothing is written while the right disk is away
rest          whether it is paused
survey        what is told of each folder
pulse         which parts stand still
inventory     a new ledger learns from the results what was painted
"""
