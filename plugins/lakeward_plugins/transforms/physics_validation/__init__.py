"""The transform `physics_validation`.

validator    the options, and what the kernel calls
expression   relations between columns
reader       from the text of an expression to functions over columns
formulas     the functions of physics that such text may name
"""
