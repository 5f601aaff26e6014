"""A package, so that no package of this name among what is installed (gmqtt 0.8 brings one) takes its place."""
