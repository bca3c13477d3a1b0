"""The engine behind `adaptivegen up`: the plan of processes, the embedded broker, the supervisor."""
