"""What a vision-language model says about kept frames. Knows torch and transformers, knows nothing of ROS.

The modules are imported one by one, so that whoever needs only requests, metrics or a checkpoint's facts does not
pay for loading torch.
"""
