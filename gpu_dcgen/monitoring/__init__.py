"""Report progress, alerts, time and memory of builds."""
