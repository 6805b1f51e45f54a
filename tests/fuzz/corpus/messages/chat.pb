


userhi