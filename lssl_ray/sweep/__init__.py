"""What a sweep found out: trials in; leaderboard, plots and the best recipe out.

Pure of Ray and MLflow. What draws and runs trials is `lssl_ray.cluster`.
"""
