"""How we know that no row is lost and none takes effect twice: the real program is killed, traced and robbed of its power.

pipeline    what is run: the YAML, and the folder that it lives in
writer      a sensor: a process of its own that writes all the time
program     starts the real program, as people do or forked from a process that has imported it already
nursery     that process
patched     what a test changes in the program: where it dies, which bug is planted, which sync it forgets
points      the places where it can die by name
documents   a sink that takes one row at a time
planted     seven bugs that the oracle must see
oracle      compares source and sinks; shares no code with lakeward
elsewhere   sinks that are elsewhere: their servers, and what is in them
storm       random kills, `make crash`
network     half of all requests are spoiled, `make faults`
trace       the system calls of a run, by strace
disk        a model of a disk: what of it is sure to be there after a power cut
order       the order of write, sync, rename and commit in a trace
powercut    the disk as it could look after a power cut at any moment of a trace
soak        hours in minutes: does anything grow, `make soak`
"""
