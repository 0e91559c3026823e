from lakeward.testing import PluginContract


class TestSinks(PluginContract):
    module = "lakeward_plugins.sinks"
