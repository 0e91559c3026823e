"""Plugins that watch runs or add commands."""
