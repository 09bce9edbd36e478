"""The live data: is each store sound, do references between stores hold, did one shrink?"""
