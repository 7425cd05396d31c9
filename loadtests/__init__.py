"""What is asked of it: arrival processes, the open-loop Locust user, wire clients and the sample recorder."""
