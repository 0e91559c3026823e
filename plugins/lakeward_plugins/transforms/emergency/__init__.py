"""The transform `emergency`: alerts from keywords in texts and from rules about readings.

Each file is one subject, and imports only from those below it. Read from the top.

    component    the options, and what the kernel calls
    saved        what is remembered, as bytes
    watch        all rules together: who judges in which order
    setup        from options to alarms, with all mistakes      keywords    words in texts
    alarm        one rule: identity, chatter, marks             quorum      several sensors at once
    silence      sensors that say nothing                       flood       more alerts than anybody can read
    evidence     what readings say: limits, rates, values       alerts      rows that come out
    machine      normal, pending, active, clearing              sensors     who sent what when; whom to forget
    memory       what is remembered of a sensor; an event       options     what stands in the YAML
"""

from lakeward_plugins.transforms.emergency.component import Emergency

__all__ = ["Emergency"]
