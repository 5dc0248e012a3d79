"""Views of an image: crops draw boxes, policies assign them to teacher and student, render turns them into pixels."""
