"""DangerousTaxi: Gymnasium's Taxi as a text grid in which a useless action is fatal.

Facts and rewards follow Zhou, Du & Li (2024): -1 a step, +20 for the first pickup, +20 for the drop-off, -10 and the
end of the episode for an action that leaves the state unchanged; all divided by 20.
"""
