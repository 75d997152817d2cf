"""The demo `glioma-demo`: real anatomy, synthetic tumours, a small trained network whose right answer is known."""
