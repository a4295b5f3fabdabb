"""The science: nets, inits, momentum methods, tasks, and the engines that train many trials as one."""
