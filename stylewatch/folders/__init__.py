"""Both ends of the way: photos that arrive and settle, results that are published.

sources    one watched folder: new and changed files, by events and by scans
watches    events from the kernel, which are only hints
scans      when a folder is looked through
listing    how: what lies in a tree, and what has changed since the last look
settle     when a file is complete
outputs    a result is written under a hidden name, then gets its own
naming     how names are given: in one step, never in place of another file
contents   files opened, hashed, compared
painted    a photo is moved or deleted when its result is safe
space      outputs that are full
"""
