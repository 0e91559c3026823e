"""The transform `physics_validation`.

validator    the options, and what the kernel calls
expression   relations between columns, as text
formulas     the functions of physics that such text may name
"""
