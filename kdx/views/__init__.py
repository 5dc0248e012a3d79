"""Where each network looks: crops draw boxes, policies hand them to the networks, render turns them into pixels."""
