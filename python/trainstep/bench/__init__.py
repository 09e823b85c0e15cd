"""What ``trainstep bench`` measures with: the roofline, the harness, the tasks, and the contenders that need only NumPy.

Other contenders are in bench/ of the source tree. They run in an interpreter that has no trainstep, which loads `tasks` and
`worker` from here alone; so this file imports nothing.
"""
