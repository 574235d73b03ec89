"""One job in a process of its own, and what runs such processes.

executors       worker processes of this machine
cluster         workers of a Dask cluster
jobtable        what both have in common
child           the inside of a worker's process
worker          one job: a photo is read, painted and written
styletransfer   the built-in effect, which paints
"""
